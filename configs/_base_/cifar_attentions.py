# The models of the CIFAR tables, with the settings of the releases. RLA has none for CIFAR: its map
# is as narrow here for its network as there.
attentions = dict(
    plain=None,
    se=dict(type='SE'),
    eca=dict(type='ECA'),
    dia=dict(type='DIALSTM', reduction=4),
    mrla_l=dict(type='MRLALight', drop_path_rate=0.2),
    mrla_b=dict(type='MRLABase', drop_path_rate=0.2),
    dla_l=dict(type='DLALight', reduction=4, drop_path_rate=0.2),
    dla_b=dict(type='DLABase', reduction=4, drop_path_rate=0.2),
    kcla=dict(type='KCLA', head_channels=16, restart_block=None, drop_path_rate=0.2),
    rla=dict(type='RLA', hidden_channels=8),
)
