"""Check that a page of HTML needs nothing but itself."""

import base64
from html.parser import HTMLParser

import cv2
import numpy as np


class Parts(HTMLParser):
    """Collect tags with their attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ''

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def check_self_contained(html: str) -> Parts:
    """Nothing is fetched, every image is inside, decodes, and has a description."""
    parts = Parts()
    parts.feed(html)
    tags = {tag for tag, _ in parts.tags}
    assert not tags & {'link', 'script', 'iframe', 'object', 'embed', 'base', 'audio', 'video'}
    assert 'url(' not in html and '@import' not in html and '://' not in html
    for tag, attrs in parts.tags:
        assert not {'href', 'srcset', 'background', 'poster'} & attrs.keys()
        if 'src' in attrs:
            kind, data = attrs['src'].split(';base64,')
            assert tag == 'img' and kind in ('data:image/png', 'data:image/jpeg')
            image = np.frombuffer(base64.b64decode(data, validate=True), np.uint8)
            assert cv2.imdecode(image, cv2.IMREAD_COLOR) is not None
            assert attrs['alt']
    return parts
