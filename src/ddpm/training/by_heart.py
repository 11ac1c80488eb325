"""Whether training images are learned by heart, as the logged bounds of validations tell it; without torch."""

SCATTER = 0.02  # of the range of both bounds: what lies within is not called a rise or a fall

Curve = tuple[list[float], list[float]]  # steps, and the values there


def learned_by_heart(held_out: Curve, training: Curve) -> tuple[int, int] | None:
    """The places in the curves between which training images are learned by heart: the best validation, and the last.

    The images and their noise are the same at every validation, so that the bounds scatter little: `SCATTER` of the
    range that they have gone through. By more than that, at the last validation and at the one before, the bound of
    held-out images lies above the smallest, and that of training images below what it was there.

    Args:
        held_out: the bound of held-out images at each validation.
        training: that of training images at the same steps.
    """
    test, train = held_out[1], training[1]
    if held_out[0] != training[0] or len(test) < 3:
        return None
    best = min(range(len(test)), key=test.__getitem__)
    margin = SCATTER * (max(*test, *train) - min(*test, *train))
    last_two = range(len(test) - 2, len(test))
    if all(k > best and test[k] - test[best] > margin and train[best] - train[k] > margin for k in last_two):
        return best, len(test) - 1
    return None


def how_learned_by_heart(held_out: Curve, training: Curve, best: int, last: int) -> str:
    """That training images are learned by heart between these places, in words."""
    (steps, test), (_, train) = held_out, training
    return (
        f"training images are learned by heart: from step {steps[best]:,.0f} to {steps[last]:,.0f} the bound of "
        f"held-out images rose from {test[best]:.3f} to {test[last]:.3f} bits/dim, and that of training images fell "
        f"from {train[best]:.3f} to {train[last]:.3f}"
    )
