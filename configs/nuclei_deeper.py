# The control: no attention, but three more blocks, so that it is as large as with DLA-L.
_base_ = '_base_/nuclei.py'
custom_imports = dict(imports=['mmdla', 'mmdla.reproduce.control'])
model = dict(backbone=dict(type='DeeperResNet', depth=59, layer_attention=None))
