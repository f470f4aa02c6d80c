"""The structural surface of a class: what an adapter's protocol is matched against, and hosts watch for drift.

What: public methods with signatures, properties, and other attributes with their type, inherited ones included.
What not: instances; nothing is constructed or called.
Must hold: equal, entry for entry, to what the ancestor records for the same class, because hosts compare hashes.
"""

from .kept import builtins as __builtins__


def derive(cls):
    """`{"methods": […], "properties": […], "attributes": […]}`, each sorted by name."""
    import inspect

    methods, properties, attributes = [], [], []
    for name in sorted(name for name in dir(cls) if not name.startswith("_")):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            properties.append(name)
            continue
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if inspect.isfunction(member):
            methods.append(_method(inspect, name, member))
        else:
            attributes.append({"name": name, "type": type(member).__name__})
    return {"methods": methods, "properties": properties, "attributes": attributes}


def protocol_members(protocol):
    """Methods and properties that an adapter's protocol asks of a tool."""
    surface = derive(protocol)
    return {"methods": surface["methods"], "properties": surface["properties"]}


def _method(inspect, name, function):
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {"name": name, "signature": "(...)", "params": []}
    return {
        "name": name,
        "signature": str(signature),
        "params": [parameter for parameter in signature.parameters if parameter != "self"],
    }
