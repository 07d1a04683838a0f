"""Function transforms, forward mode and batched gradients agree with plain backward passes."""

import torch
from tool_models import (
    EVERY,
    MODES,
    agree,
    gradients,
    images,
    loss_of,
    make,
    reference,
    same_gradients,
)
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap


@EVERY
def test_vmap_over_images_and_weights(kind):
    models = [make(kind).eval() for _ in range(2)]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(0.9)
    stacked, buffers = stack_module_state(models)
    base, x = make(kind).eval(), images()

    def call(weights, buffers, x):
        return functional_call(base, (weights, buffers), (x,))

    got = vmap(call, in_dims=(0, 0, None))(stacked, buffers, x)
    for i, model in enumerate(models):
        agree([out[i] for out in got], model(x))
    each = vmap(lambda image: base(image[None])[-1][0])(x)
    agree([each], base(x)[-1:])


@EVERY
@MODES
def test_grad_jvp_jacrev(kind, training):
    model, x = make(kind).train(training), images()
    weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(weights, x):
        return loss_of(
            functional_call(model, (weights, {k: b.clone() for k, b in buffers.items()}), (x,))
        )

    fresh = reference(kind, training)
    same_gradients(grad(loss)(weights, x), gradients(fresh, x))
    z = x.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(loss_of(fresh(z)), z)
    direction = images(seed=5)
    (tangent,) = jvp(lambda x: (loss(weights, x),), (x,), (direction,))[1]
    torch.testing.assert_close(tangent, (by_autograd * direction).sum(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        jacrev(lambda x: loss(weights, x))(x), by_autograd, rtol=1e-8, atol=1e-8
    )
    with forward_ad.dual_level():
        out = loss_of(model(forward_ad.make_dual(x, direction)))
        got = forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(got, tangent, rtol=1e-8, atol=1e-8)


@EVERY
@MODES
def test_batched_gradients_and_saved_tensors(kind, training):
    x = images()

    def jacobian(model, batched):
        z = x.clone().requires_grad_()
        out = model(z)[-1].mean((2, 3)).flatten()[:3]
        rows = torch.eye(3, dtype=x.dtype)
        if batched:
            return torch.autograd.grad(out, z, rows, is_grads_batched=True)[0]
        return torch.stack([torch.autograd.grad(out, z, r, retain_graph=True)[0] for r in rows])

    model, plain = make(kind).train(training), reference(kind, training)
    expected = jacobian(plain, False)
    torch.testing.assert_close(jacobian(model, True), expected, rtol=1e-8, atol=1e-10)
    model, plain = make(kind).train(training), reference(kind, training)
    with torch.autograd.graph.save_on_cpu():
        got = gradients(model, x)
    same_gradients(got, gradients(plain, x))
