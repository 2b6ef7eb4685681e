"""Settings of learning weights and their transformation together; the two recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tersor.errors import SettingError
from tersor.joint.transforms import FORMS
from tersor.rate import KERNELS


@dataclass(frozen=True)
class Recipe:
    """How transformation and weights are learned: rounds of some iterations on the former, then some on the latter."""

    name: str
    form: str = "joint"
    """Form of the transformation of weights; vectors are always linear."""
    rows: bool = False
    """One step for every row of a weight, not one for the whole tensor; with form linear."""
    kernel: str = "cosine"
    resolution: float = 64
    rounds: int = 5
    transformation_iterations: int = 300
    weight_iterations: int = 1000
    transformation_lr: float = 1e-4
    weight_lr: float = 5e-6
    relative: bool = False
    """Parameters are learned as logarithms, and weights at a rate in steps, decaying to nothing; loss relative to the
    spread of the outputs. Otherwise absolute rates, constant, and mean squared error."""
    price: Literal["switched", "dual"] = "switched"
    """Price of a bit: `above` the target and `below` it, or a dual variable that settles where the target is met."""
    above: float = 1e-6
    below: float = 1e-8
    dual_rate: float = 0.3
    steering: float = 0.2
    """With a dual price, how much all steps grow at once for every share of bits above the target."""
    rate_everywhere: bool = False
    """The rate term and the transformation's parameters take part in the weight phase too."""
    learn_vector_steps: bool = True
    """Biases and normalisation layers get learned steps as weights do, instead of fixed ones of 8 bits."""
    batch_statistics: bool = True
    """Batch normalisation runs in training mode, of teacher and student, and its statistics drift; otherwise statistics
    are estimated anew for the quantized weights at the start, and gain and bias, which are learned, take them in."""
    patience: int = 0
    """Rounds without gain on held-out samples after which learning stops; 0: never, and the last round counts."""
    against_balanced: bool = False
    """Recipe `balanced` makes a file too, which `finish` improves, and held-out samples choose between the two."""

    def __post_init__(self) -> None:
        for value, known, what in ((self.form, FORMS, "form"), (self.kernel, KERNELS, "kernel")):
            if value not in known:
                raise SettingError(f"there is no {what} {value!r}", remedy=f"choose one of {', '.join(known)}")
        if self.rows and self.form != "linear":
            raise SettingError(
                f"steps by row with form {self.form}", remedy="a tensor has one dead zone: use form linear"
            )
        if min(self.rounds, self.transformation_iterations, self.weight_iterations) < 0 or self.rounds < 1:
            raise SettingError("rounds are at least 1, iterations at least 0", where=f"recipe {self.name}")

    @property
    def iterations(self) -> int:
        """Iterations in all."""
        return self.rounds * (self.transformation_iterations + self.weight_iterations)

    @property
    def noted(self) -> dict[str, Any]:
        """What files say: the recipe's name, and settings that are not those it has in the version they state."""
        usual = {r.name: r for r in (BEST, L2_PAPER)}.get(self.name, Recipe(self.name))
        changed = {key: value for key, value in asdict(self).items() if value != getattr(usual, key)}
        return {"recipe": self.name, **changed}


L2_PAPER = Recipe("l2-paper")
"""Shi et al. 2023, section 5.1: five rounds for convolutional networks; use `rounds=3` for transformers."""

BEST = Recipe(
    "best",
    rounds=2,
    transformation_iterations=50,
    weight_iterations=100,
    transformation_lr=3e-3,
    weight_lr=5e-3,
    relative=True,
    price="dual",
    rate_everywhere=True,
    learn_vector_steps=False,
    batch_statistics=False,
    patience=2,
    against_balanced=True,
)
"""Log steps, rate in both phases, a dual price; held-out samples decide, also between this and `balanced`. Short: from
hundreds of samples, longer learning loses more on others (docs/decisions/0022)."""
