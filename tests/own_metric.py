"""A metric of a user's own: what a package beside this one would hold."""

from ddpm.metrics.metric import InOrderMetric, check_whole


class Spread(InOrderMetric):
    """The mean p-th absolute moment of the features: samples that are all alike have little of it."""

    quantities = {"spread": {"title": "Spread", "digits": 2, "better": "higher"}}  # noqa: RUF012
    settings = {"power": "spread_power"}  # noqa: RUF012
    needs_reference = False

    def __init__(self, power=2):
        check_whole("spread.power", power, 1)
        self.power = power

    @property
    def fewest(self):
        return 1

    def compute(self, n, reference=None):
        rows = self.in_order()
        return {"spread": {"value": float((rows - rows.mean(0)).abs().pow(self.power).mean())}}

    def notes(self, metrics, real):
        return [f"Spread: of {metrics['spread']['n']} samples"]
