# The first base of configs whose other base is one of MMSegmentation: imported before that one is
# looked for, since the package knows under which name the library is installed.
__import__('mmdla')
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)
