"""What every block of params.yaml is made of."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, create_model


class Block(BaseModel):
    """A part of params.yaml: unknown keys are errors, numbers are finite, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    entry_of: ClassVar[type[Block] | None] = None
    """Of a `partial`: the class whose entries it stands for."""
    entry_base: ClassVar[type[Block]]
    """What its `partial` derives from."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with other values of some fields; what the original has cached (`cached_property`) is not its."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @classmethod
    def entry_fields(cls) -> dict[str, Any]:
        """The fields of its `partial`, as `pydantic.create_model` takes them."""
        fields: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            annotation = field.annotation
            if isinstance(annotation, type) and issubclass(annotation, Block):
                annotation = partial(annotation)
            elif field.metadata:
                annotation = Annotated[(annotation, *field.metadata)]  # type: ignore[assignment]
            fields[name] = (annotation, Field(None, description=field.description))
        return fields

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """The fields' docstrings are their descriptions. pydantic can read them itself, whenever a class is made, which
        took a quarter of the time in which every command reads params.yaml."""
        schema = handler(core_schema)
        part = handler.resolve_ref_schema(schema)
        docs = field_docs(cls.entry_of or cls)
        for key, field in part.get("properties", {}).items():
            if key in docs and "description" not in field:
                part["properties"][key] = {**field, "description": docs[key]}
        return schema


Block.entry_base = Block


def field_docs(model: type[Block]) -> dict[str, str]:
    """The docstring below each field of `model` and of what it derives from."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, Block) or kind is Block:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                text = getattr(below.value, "value", None)
                if isinstance(text, str):
                    found[field.target.id] = inspect.cleandoc(text)
    return found


Probability = Annotated[float, Field(ge=0, le=1)]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


@cache
def partial(model: type[Block]) -> type[Block]:
    """The class of entries that may leave out any field of `model`, at any depth."""
    fields = {**model.entry_fields(), "entry_of": (ClassVar[type[Block]], model)}
    return create_model(f"{model.__name__}Entry", __base__=model.entry_base, __doc__=model.__doc__, **fields)


def stated(block: Any) -> dict[str, Any]:
    """What a block of the file says itself, without defaults."""
    return block.model_dump(exclude_unset=True)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; lists and values replace."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
