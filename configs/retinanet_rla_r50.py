_base_ = './retinanet_dla_r50.py'
model = dict(backbone=dict(layer_attention=dict(_delete_=True, type='RLA')))
