"""Annotated shapes are checked in the first calls of a test: a loop of thousands of steps has the same in each.

`make test-all` sets CHECK_EVERY_SHAPE, and has them checked in all.
"""

import math
import os

import jaxtyping

CHECKED = math.inf if os.environ.get("CHECK_EVERY_SHAPE") else 1000
left = 0


class FirstCalls(type(jaxtyping.config)):
    """Settings of jaxtyping's, which asks at each call whether it is to check nothing."""

    @property
    def jaxtyping_disable(self):
        global left
        left -= 1
        return left < 0


def check_anew():
    """Begin to count again, before a test."""
    global left
    left = CHECKED


jaxtyping.config.__class__ = FirstCalls
