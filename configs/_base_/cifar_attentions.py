# The eight models of the CIFAR tables, with the settings of the release.
attentions = dict(
    plain=None,
    se=dict(type='SE'),
    eca=dict(type='ECA'),
    dia=dict(type='DIALSTM', reduction=4),
    mrla_l=dict(type='MRLALight', drop_path_rate=0.2),
    mrla_b=dict(type='MRLABase', drop_path_rate=0.2),
    dla_l=dict(type='DLALight', reduction=4, drop_path_rate=0.2),
    dla_b=dict(type='DLABase', reduction=4, drop_path_rate=0.2),
)
