"""Components by name: one registry for each kind, open to other packages and to single files.

A component is a class or function whose keyword-only, typed parameters are its recipe keys; the program fills the positional
ones. One decorator registers it::

    from wildfern.registry import register

    @register("method", "mine")
    class Mine(Method): ...

Built-in components are registered when their package is imported. An installed package registers its own through entry
points: group `wildfern.methods` (`wildfern.sources`, `wildfern.generators` …), name of the component, `module:attribute`.
A single file registers its own when `load_plugin` runs it.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from os import PathLike
from typing import Any, TypeVar

from wildfern.plugins import Plugin, PluginError, execute, read_plugin

__all__ = [
    "ENGINES",
    "EVALUATORS",
    "GENERATORS",
    "METHODS",
    "OPTIMIZERS",
    "REGISTRIES",
    "SCHEDULES",
    "SOURCES",
    "VIEWS",
    "ComponentError",
    "Origin",
    "Plugin",
    "PluginError",
    "Registry",
    "load_plugin",
    "loaded_plugin",
    "location_parameter",
    "origin_of_module",
    "register",
]

C = TypeVar("C", bound=Callable[..., Any])

LOCATION = ("path", "pattern", "name")  # parameters of a source that take what follows the colon


class ComponentError(ValueError):
    """A component cannot be used: its name is taken, or its package cannot be imported."""


@dataclass(frozen=True)
class Origin:
    """Where a component comes from: `wildfern`, a package with its version, a module, or a plugin file with its SHA-256."""

    name: str
    version: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}" if self.version else self.name


BUILT_IN = Origin("wildfern")


class Registry(Mapping[str, Any]):
    """The components of one kind: a mapping from name to class or function.

    `group` is the entry point group of other packages, `home` the package whose import registers the built-in components.
    Both are loaded when the registry is first read. An entry point is imported when it is looked up.
    The components of the registry `includes` are found here too.
    """

    def __init__(self, kind: str, group: str, home: str, includes: "Registry | None" = None) -> None:
        self.kind, self.group, self.home = kind, group, home
        self._includes = includes
        self._relatives: list[Registry] = [] if includes is None else [includes]  # share one set of names
        if includes is not None:
            includes._relatives.append(self)
        self._components: dict[str, Any] = {}
        self._origins: dict[str, Origin] = {}
        self._entry_points: dict[str, list[EntryPoint]] | None = None

    def register(self, name: str, component: Any, origin: Origin = BUILT_IN) -> None:
        """Add a component. Raises ComponentError for a name that is taken or invalid."""
        if not re.fullmatch(r"[\w-]+", name):
            raise ComponentError(f"{self.kind} {name!r}: names may contain letters, digits, _ and -")
        if not callable(component):
            raise ComponentError(f"{self.kind} {name!r} must be a class or a function, got {type(component).__name__}")
        if origin != BUILT_IN:
            self._load()  # built-in components first, so that they keep their names
        taken = self._components.get(name)
        if taken is not None and taken is not component:
            raise ComponentError(
                f"two components are registered as {self.kind} {name!r}: one from {self._origins[name]}, one from {origin}"
            )
        for other in self._relatives:
            if name in other._components:
                raise ComponentError(
                    f"{self.kind} {name!r} of {origin} has the name of the {other.kind} of {other._origins[name]}"
                )
        self._components[name] = component
        self._origins.setdefault(name, origin)

    def forget(self, origin: Origin) -> None:
        """Remove all components of one origin."""
        for name in [name for name, found in self._origins.items() if found == origin]:
            del self._components[name], self._origins[name]

    def origin(self, name: str) -> Origin:
        """Where a component comes from; imports nothing. Raises KeyError for an unknown name."""
        self._load()
        if name in self._origins:
            return self._origins[name]
        if name in self._points:
            return _package(self._points[name][0])
        if self._includes is not None:
            return self._includes.origin(name)
        raise KeyError(name)

    def foreign(self) -> dict[str, Origin]:
        """Components from outside wildfern, name → origin, without those of the included registry."""
        names = [name for name in self if self._includes is None or name not in self._includes]
        return {name: origin for name in names if (origin := self.origin(name)) != BUILT_IN}

    def __getitem__(self, name: str) -> Any:
        self._load()
        if name in self._points:
            for point in self._points[name]:
                self._import(point)
            del self._points[name]
        if name not in self._components and self._includes is not None:
            return self._includes[name]
        return self._components[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        yield from dict.fromkeys([*self._components, *self._points, *(self._includes or ())])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        self._load()
        own = name in self._components or name in self._points
        return own or (self._includes is not None and name in self._includes)

    @property
    def _points(self) -> dict[str, list[EntryPoint]]:
        return {} if self._entry_points is None else self._entry_points

    def _load(self) -> None:
        if self._entry_points is not None:
            return
        self._entry_points = {}  # set first: the import below may read this registry
        try:
            import_module(self.home)
        except BaseException:
            self._entry_points = None
            raise
        for point in entry_points(group=self.group):
            self._entry_points.setdefault(point.name, []).append(point)

    def _import(self, point: EntryPoint) -> None:
        package = _package(point)
        _packages[point.module.partition(".")[0]] = package
        try:
            component = point.load()
        except (Exception, SystemExit) as error:
            raise ComponentError(
                f"{self.kind} {point.name!r} of the package {package} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if self._components.get(point.name) is component:  # the module also registered it with the decorator
            self._origins[point.name] = package
        self.register(point.name, component, package)


GENERATORS = Registry("generator", "wildfern.generators", "wildfern.generators")
SOURCES = Registry("source", "wildfern.sources", "wildfern.ssl.data", includes=GENERATORS)
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

_plugins: dict[str, Plugin] = {}  # by resolved path
_modules: dict[str, Origin] = {}  # of plugins, by the name of their module
_packages: dict[str, Origin] = {}  # with entry points that were imported, by the name of the top-level package


def register(kind: str, name: str, **declared: object) -> Callable[[C], C]:
    """Register the decorated class or function as a component, for instance `@register("method", "mine")`.

    `declared` become attributes of the component: `layer_wise=True` of an optimizer that needs whole layers.
    Raises ComponentError for an unknown kind, and for a name that is taken.
    """
    if kind not in REGISTRIES:
        raise ComponentError(f"unknown kind of component {kind!r}; known: {', '.join(REGISTRIES)}")
    origin = _origin(sys._getframe(1).f_globals)

    def add(component: C) -> C:
        for key, value in declared.items():
            setattr(component, key, value)
        REGISTRIES[kind].register(name, component, origin)
        return component

    return add


def load_plugin(path: str | PathLike[str]) -> Plugin:
    """Run a Python file whose components register themselves; the same content is run once.

    A file that has changed since it was loaded is run again, and its components replace the former ones. Raises PluginError
    for a file that cannot be run or takes the name of another component; nothing of it is registered then.
    """
    plugin = read_plugin(path)
    former = _plugins.get(str(plugin.path))
    if former is not None and former.sha256 != plugin.sha256:
        del _plugins[str(plugin.path)]
        _forget(former)
    if plugin.module in _modules:
        _plugins.setdefault(str(plugin.path), plugin)
        return plugin
    _modules[plugin.module] = Origin(plugin.name, sha256=plugin.sha256)
    try:
        execute(plugin)
    except PluginError:
        _forget(plugin)
        raise
    _plugins[str(plugin.path)] = plugin
    return plugin


def loaded_plugin(path: str | PathLike[str]) -> Plugin | None:
    """The plugin that was loaded from this path, with its content at that time; None if there is none."""
    return next((plugin for plugin in _plugins.values() if plugin.is_at(path)), None)


def origin_of_module(module: str) -> Origin | None:
    """The plugin file or package that a module belongs to; None if it is not one with components that were loaded."""
    if module in _modules:
        return _modules[module]
    package = module.partition(".")[0]
    return None if package == "wildfern" else _packages.get(package)


def location_parameter(component: Callable[..., Any]) -> inspect.Parameter | None:
    """The parameter of a source that takes what follows the colon (`path`, `pattern` or `name`), if it has one."""
    parameters = inspect.signature(component).parameters
    return next((parameters[name] for name in LOCATION if name in parameters), None)


def _forget(plugin: Plugin) -> None:
    origin = _modules.pop(plugin.module)
    for registry in REGISTRIES.values():
        registry.forget(origin)


def _origin(scope: Mapping[str, Any]) -> Origin:
    """The origin of a component: the module with these globals."""
    module = str(scope.get("__name__", "__main__"))
    if module in _modules:
        return _modules[module]
    if module.partition(".")[0] == "wildfern":
        return BUILT_IN
    return Origin(str(scope.get("__file__", module)) if module == "__main__" else module)


def _package(point: EntryPoint) -> Origin:
    return Origin(point.dist.name, point.dist.version) if point.dist else Origin(point.value)
