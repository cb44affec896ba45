"""The price table of `fakesift plan`: machines, requests and storage, in a YAML file that its user edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRICES = Path(__file__).parents[1] / "cluster" / "prices.yaml"
EFFICIENCY = 0.9
"""`tests/benchmarks/scale.py`: two workers on 2 cores do 1.87 times the work of one; rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A kind of machine."""

    name: str
    cpus: int
    gpus: int
    per_hour: float
    gbit: float
    """Of its network, in gigabits a second."""

    def __post_init__(self) -> None:
        """Refuses a machine that cannot be."""
        if self.cpus < 1 or self.gpus < 0 or self.per_hour < 0 or self.gbit <= 0:
            raise ValueError(f"{self}, expected 1 CPU or more, no negative number, and a network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The price table."""

    currency: str
    cpu_node: Node
    gpu_node: Node | None
    head: Node
    per_1000_get: float
    per_1000_put: float
    per_gb_month: float

    def cost(self, node: Node, nodes: int, hours: float, *, gets: float, puts: float) -> float:
        """Of one run: so many machines of a kind with a head, and requests."""
        machines = hours * (nodes * node.per_hour + self.head.per_hour)
        return machines + (gets * self.per_1000_get + puts * self.per_1000_put) / 1000

    def node(self, *, gpus: bool) -> Node:
        """The machine that does the work. Raises `ValueError` where the table names none with a GPU."""
        if not gpus:
            return self.cpu_node
        if self.gpu_node is None or not self.gpu_node.gpus:
            raise ValueError(f"prices: got no gpu_node with a GPU, expected one as in {PRICES.name}")
        return self.gpu_node


def read_prices(path: Path) -> Prices:
    """The table in a YAML file. Raises `ValueError` that names what is wrong."""
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        gpu_node = table.get("gpu_node")
        return Prices(
            currency=str(table["currency"]),
            cpu_node=_node(table["cpu_node"]),
            gpu_node=None if gpu_node is None else _node(gpu_node),
            head=_node(table["head_node"]),
            per_1000_get=float(table["per_1000_get"]),
            per_1000_put=float(table["per_1000_put"]),
            per_gb_month=float(table["per_gb_month"]),
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"prices {path}: got {error!r}, expected a table as {PRICES.name}") from error


def _node(row: Mapping[str, Any]) -> Node:
    """A network of 1 Gbit/s where none is named."""
    return Node(
        name=str(row["name"]),
        cpus=int(row["cpus"]),
        gpus=int(row.get("gpus", 0)),
        per_hour=float(row["per_hour"]),
        gbit=float(row.get("gbit", 1)),
    )
