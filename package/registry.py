"""Components by name: one registry for each kind, open to other packages and to single files.

A component is a class or function whose keyword-only, typed parameters are its recipe keys. One decorator registers it::

    from wildfern.registry import register

    @register("method", "mine")
    class Mine(Method): ...

Built-in components are registered when their package is imported. An installed package registers its own through entry
points: group `wildfern.methods` (`wildfern.sources`, `wildfern.generators` …), name of the component, `module:attribute`.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

Component = Callable[..., Any]
C = TypeVar("C", bound=Component)


class Registry(Mapping[str, Component]):
    """The components of one kind: a mapping from name to class or function.

    `group` is the entry point group of other packages, `home` the package whose import registers the built-in components.
    Both are loaded when the registry is first read. Entry points are listed at once and imported when they are looked up.
    """

    def __init__(self, kind: str, group: str, home: str) -> None:
        self.kind, self.group, self.home = kind, group, home
        self._components: dict[str, Component] = {}
        self._origins: dict[str, str] = {}
        self._entry_points: dict[str, EntryPoint] | None = None

    def register(self, name: str, component: Component, origin: str = "wildfern") -> None:
        """Add a component. Raises ValueError if the name is taken by another one."""
        taken = self._components.get(name)
        if taken is not None and taken is not component:
            raise ValueError(
                f"two components are registered as {self.kind} {name!r}: one from {self._origins[name]}, one from {origin}"
            )
        self._components[name] = component
        self._origins.setdefault(name, origin)

    def origin(self, name: str) -> str:
        """Where a component comes from: `wildfern`, or a package with its version, or a file."""
        self[name]
        return self._origins[name]

    def __getitem__(self, name: str) -> Component:
        self._load()
        if name not in self._components and name in self._entry_points:
            self._import(self._entry_points[name])
        return self._components[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        yield from self._components
        yield from (name for name in self._entry_points if name not in self._components)

    def __len__(self) -> int:
        self._load()
        return len(self._components.keys() | self._entry_points.keys())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._components or name in self._entry_points

    def _load(self) -> None:
        if self._entry_points is None:
            self._entry_points = {}  # set first: the import below may read this registry
            import_module(self.home)
            self._entry_points = {point.name: point for point in entry_points(group=self.group)}

    def _import(self, point: EntryPoint) -> None:
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            component = point.load()
        except Exception as error:
            raise ValueError(
                f"{self.kind} {point.name!r} of the package {package} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        self._components.setdefault(point.name, component)
        self._origins[point.name] = package


GENERATORS = Registry("generator", "wildfern.generators", "wildfern.generators")
SOURCES = Registry("source", "wildfern.sources", "wildfern.ssl.data")
VIEWS = Registry("views", "wildfern.views", "wildfern.ssl.augmentation")
METHODS = Registry("method", "wildfern.methods", "wildfern.ssl.methods")
OPTIMIZERS = Registry("optimizer", "wildfern.optimizers", "wildfern.ssl.training")
SCHEDULES = Registry("schedule", "wildfern.schedules", "wildfern.ssl.training")
ENGINES = Registry("engine", "wildfern.engines", "wildfern.ssl.training")
EVALUATORS = Registry("evaluator", "wildfern.evaluators", "wildfern.ssl.evaluation")

REGISTRIES = {
    registry.kind: registry
    for registry in (GENERATORS, SOURCES, VIEWS, METHODS, OPTIMIZERS, SCHEDULES, ENGINES, EVALUATORS)
}


def register(kind: str, name: str) -> Callable[[C], C]:
    """Register the decorated class or function as a component, for instance `@register("method", "mine")`.

    Raises ValueError for an unknown kind, and for a name that is taken.
    """
    if kind not in REGISTRIES:
        raise ValueError(f"unknown kind of component {kind!r}; known: {', '.join(REGISTRIES)}")

    def add(component: C) -> C:
        REGISTRIES[kind].register(name, component)
        return component

    return add
