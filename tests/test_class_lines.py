"""A trainer's class line is one namespace: it is kept short, and no attribute in it hides a method."""

import inspect

import pytest
from dassl.engine import TRAINER_REGISTRY
from kinds import TRAINERS

import train
from tlla.methods import METHODS

DEEPEST = 6  # classes, the toolkit's included


def line(kind: type) -> list[type]:
    return [cls for cls in kind.__mro__ if cls is not object]


def is_method(value) -> bool:
    return inspect.isfunction(value) or isinstance(value, (staticmethod, classmethod))


def hidden_methods(kind: type, attributes: dict) -> list[str]:
    """Methods of the class line in whose place an attribute of an instance, or of a later class, is found."""
    namespaces = [attributes, *(vars(cls) for cls in line(kind))]
    return [
        name
        for number, namespace in enumerate(namespaces)
        for name, value in namespace.items()
        if not is_method(value) and any(is_method(earlier.get(name)) for earlier in namespaces[number + 1 :])
    ]


def test_class_lines_are_short():
    assert max(len(line(TRAINER_REGISTRY.get(name))) for name in TRAINERS) <= DEEPEST


@pytest.mark.parametrize("name", sorted({*TRAINERS} - {*METHODS} | {"STSS"}))  # the methods' trainers are one class
def test_no_attribute_hides_a_method(place, monkeypatch, name):
    """Looked for after a run, which sets all attributes."""
    built = []
    build = train.build_trainer
    monkeypatch.setattr(train, "build_trainer", lambda cfg: built.append(build(cfg)) or built[0])
    place.run(name, name, "OPTIM.MAX_EPOCH", "1", "TRAINER.COMPARE.METHODS", "['STSS']", "TRAINER.VIEWS.N_VIEWS", "3")
    (trainer,) = built
    assert hidden_methods(type(trainer), vars(trainer)) == []
    assert hidden_methods(type(trainer.tester), vars(trainer.tester)) == []


def test_a_hidden_method_is_found():
    class First:
        def encode(self):
            """A method."""

        def load(self):
            """Another one."""

    class Second(First):
        load = 3

        def encode(self):
            """May be replaced."""

    assert hidden_methods(Second, {}) == ["load"] and hidden_methods(Second, {"encode": 7}) == ["encode", "load"]
