import pytest
import torch

from ddpm import Schedule, add_noise, denoiser, loss
from ddpm.diffusion import PREDICTIONS
from ddpm.pixels import LIMIT
from ddpm.unet import PREDICTION_TYPES
from tests.helpers import tiny_unet


def batch(n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(n, 1, 8, 8, generator=generator).clamp(-1, 1)
    return (
        x0,
        torch.randint(0, 11, (n,), generator=generator),
        torch.randn(n, 1, 8, 8, generator=generator),
    )


def test_every_type_that_a_network_may_have_has_formulas():
    assert set(PREDICTIONS) == set(PREDICTION_TYPES)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_prediction_gives_x0_back(name):
    x0, eps = (z.double() for z in batch()[::2])
    alpha, sigma = (c[:, None, None, None] for c in Schedule()(torch.linspace(1, 990, 6)))
    target = PREDICTIONS[name].target(x0, eps, alpha, sigma)
    torch.testing.assert_close(
        PREDICTIONS[name].x0(target, alpha * x0 + sigma * eps, alpha, sigma),
        x0,
        rtol=1e-9,
        atol=1e-9,
    )


def test_the_closed_form_is_the_chain_of_single_steps():
    """q(x_t | x0) by drawing step after step with the betas has the mean and variance of DDPM, Eq.
    4."""
    schedule = Schedule("linear", 50)
    from ddpm.schedule import SCHEDULES

    x = torch.full((200_000,), 0.7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for beta in SCHEDULES["linear"](50)[:30]:
        x = (1 - beta).sqrt() * x + beta.sqrt() * torch.randn(
            x.shape, generator=generator, dtype=x.dtype
        )
    alpha, sigma = schedule(30)
    assert x.mean().item() == pytest.approx(0.7 * alpha.item(), abs=4 * sigma.item() / 200_000**0.5)
    assert x.std().item() == pytest.approx(sigma.item(), rel=0.01)


def test_noise_at_0_is_none_and_at_T_is_almost_all():
    x0, _, eps = batch()
    schedule = Schedule()
    assert torch.equal(add_noise(schedule, x0, torch.zeros(6), eps), x0)
    torch.testing.assert_close(
        add_noise(schedule, x0, torch.full((6,), 1000.0), eps), eps, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_the_loss_is_the_mean_squared_error_of_the_prediction(prediction):
    model = tiny_unet(prediction=prediction)
    x0, y, eps = batch()
    t = torch.tensor([1.0, 20, 40, 60, 80, 100])
    alpha, sigma = (c.float()[:, None, None, None] for c in model.schedule(t))
    target = PREDICTIONS[prediction].target(x0, eps, alpha, sigma)
    expected = ((model(add_noise(model.schedule, x0, t, eps), t, y) - target) ** 2).mean()
    torch.testing.assert_close(loss(model, x0, y, t, eps), expected)


def test_the_pseudo_huber_loss_is_a_square_for_small_errors_and_a_size_for_large_ones():
    model, (x0, y, eps) = tiny_unet(), batch()
    t = torch.full((len(x0),), 50.0)
    alpha, sigma = (c.float() for c in model.schedule(50))
    error = model(alpha * x0 + sigma * eps, t, y) - (alpha * eps - sigma * x0)
    far, near = 30, 1e-6
    square = loss(model, x0, y, t, eps, huber=far) * 2 * far
    torch.testing.assert_close(square, loss(model, x0, y, t, eps), rtol=0.01, atol=0)
    torch.testing.assert_close(loss(model, x0, y, t, eps, huber=near), error.abs().mean())


def test_guidance_is_a_line_through_both_predictions():
    model = tiny_unet(prediction="x0")
    with torch.no_grad():
        model.conv_out.weight.mul_(0.01)  # so small that nothing is clipped
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([3, 1, 4, 1])
    without = denoiser(model, None)(x, 50)
    with_label = denoiser(model, y)(x, 50)
    assert not torch.allclose(with_label, without)
    guided = denoiser(model, y, guidance=2.0)(x, 50)
    assert guided.abs().max() < 1
    torch.testing.assert_close(guided, 3 * with_label - 2 * without, rtol=1e-4, atol=1e-5)
    none = torch.full((4,), model.classes)
    torch.testing.assert_close(
        denoiser(model, none, guidance=2.0)(x, 50), without, rtol=1e-4, atol=1e-5
    )


def test_the_denoiser_clips_x0_and_leaves_gradients_and_inputs_alone():
    model = tiny_unet()
    x = 30 * torch.randn(4, 1, 8, 8)
    before = x.clone()
    x0 = denoiser(model)(x, 20)
    assert x0.abs().max() == LIMIT
    assert not x0.requires_grad and torch.is_grad_enabled()
    assert torch.equal(x, before)


def test_guidance_without_labels_is_refused():
    with pytest.raises(ValueError, match="label"):
        denoiser(tiny_unet(), guidance=1.0)
