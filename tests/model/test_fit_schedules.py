"""What follows from a history: stages, learning rates, early stopping, the best epoch."""

import pytest

from batch.model.fit.options import FitOptions
from batch.model.fit.schedules import average_decay, best_epoch, current_stage, learning_rate
from batch.model.records import EpochRecord


def history(*losses: float | None, stage: str = "whole") -> list[EpochRecord]:
    return [
        EpochRecord(
            stage=stage, epoch=epoch, step=epoch, loss=0.5, learning_rate=0.1, images_per_second=1.0, seconds=1.0,
            validation={} if loss is None else {"loss": loss},
        )
        for epoch, loss in enumerate(losses, start=1)
    ]  # fmt: skip


def test_a_pretrained_network_trains_its_head_first() -> None:
    options = FitOptions(head_epochs=2, epochs=1)
    head = history(0.7, 0.6, stage="head")
    assert current_stage([], options, pretrained=True) == "head"
    assert current_stage(head[:1], options, pretrained=True) == "head"
    assert current_stage(head, options, pretrained=True) == "whole"
    assert current_stage([*head, *history(0.5)], options, pretrained=True) is None
    assert current_stage([], options, pretrained=False) == "whole"


def test_a_stage_ends_when_validation_does_not_get_better() -> None:
    options = FitOptions(head_epochs=9, epochs=9, patience=2)
    assert current_stage(history(0.5, 0.6, stage="head"), options, pretrained=True) == "head"
    assert current_stage(history(0.5, 0.6, 0.5, stage="head"), options, pretrained=True) == "whole"
    head = history(0.3, 0.4, 0.5, stage="head")
    assert current_stage([*head, *history(0.5, 0.4)], options, pretrained=True) == "whole"
    assert current_stage([*head, *history(0.4, 0.5, 0.4)], options, pretrained=True) is None
    assert current_stage(history(None, None, None), options, pretrained=False) == "whole"


def test_cosine_falls_from_the_largest_rate_to_nothing_after_warm_up() -> None:
    options = FitOptions(epochs=5, learning_rate=1.0, head_learning_rate=0.1, warmup_epochs=1.0)
    assert learning_rate([], options, "whole", 0.0) == pytest.approx(0.01)
    assert learning_rate([], options, "whole", 0.5) == pytest.approx(0.5)
    assert learning_rate(history(1), options, "whole", 0.0) == pytest.approx(1.0)
    assert learning_rate(history(1, 1, 1), options, "whole", 0.0) == pytest.approx(0.5)
    assert learning_rate(history(1, 1, 1, 1), options, "whole", 0.99) < 0.001
    # The second stage begins anew.
    assert learning_rate(history(1, 1, stage="head"), options, "whole", 0.5) == pytest.approx(0.5)


def test_plateau_falls_each_time_that_validation_stalls() -> None:
    options = FitOptions(schedule="plateau", learning_rate=1.0, plateau_patience=2, plateau_factor=0.1)
    rates = [learning_rate(history(*([0.5] * epochs)), options, "whole", 0.0) for epochs in range(7)]
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert learning_rate(history(0.5, 0.6, 0.4, 0.5), options, "whole", 0.0) == pytest.approx(1.0)


def test_the_average_follows_closely_at_first() -> None:
    options = FitOptions(ema=0.9)
    assert [average_decay(options, step) for step in (0, 8, 1000)] == pytest.approx([0.1, 0.5, 0.9])


def test_the_best_epoch_has_the_lowest_validation_loss() -> None:
    assert best_epoch(history(0.5, 0.3, 0.3, 0.4)) == 1
    assert best_epoch(history(None, None)) == 1
    assert best_epoch([]) is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"backend": "torch"}, "received 'torch', expected tensorflow, jax"),
        ({"optimizer": "lion"}, "received 'lion'"),
        ({"learning_rate": 0.0}, "bad learning_rate: received 0.0, expected more than 0"),
        ({"label_smoothing": 1.0}, "received 1.0, expected 0 or more and below 1"),
        ({"ema": 1.0}, "bad ema: received 1.0"),
        ({"clip_norm": 0.0}, "bad clip_norm"),
        ({"patience": 0}, "bad patience"),
        ({"unfreeze": 0}, "received 0, expected 'whole' or 1 or more"),
        ({"optimizer": "adamw"}, "adamw without weight_decay"),
        ({"epochs": 0, "head_epochs": 0}, "nothing to train"),
    ],
)
def test_bad_options_are_refused(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FitOptions(**given)
