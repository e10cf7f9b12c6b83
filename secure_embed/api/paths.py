"""How a record's id stands in a path: ``{record:any}``. Registered with the import of this module."""

from starlette.convertors import StringConvertor, register_url_convertor

__all__ = ["RECORD"]


class _AnyText(StringConvertor):
    """All that follows, slashes and line ends too: with Starlette's ``path`` an id and the id before its line end are one."""

    regex = r"[\s\S]+"


register_url_convertor("any", _AnyText())
RECORD = "/collections/{collection}/records/{record:any}"
