# CIFAR-100, the rest as CIFAR-10.
_base_ = './cifar10.py'

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(type='CIFAR100', data_root='data/cifar100/'))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root='data/cifar100/'))
test_dataloader = dict(dataset=dict(type='CIFAR100', data_root='data/cifar100/'))
