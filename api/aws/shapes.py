"""What shapes of every service share: how a struct's members are named in JSON and in the query protocol.

A member is `queue_url` here and `QueueUrl` on the wire. Lists and maps of the query protocol need more names than that,
because they are written as numbered parameters and, in XML, as elements:

    SNS:  list  Tags.member.1.Key=…          <Tags><member><Key>…</Key></member></Tags>
          map   Attributes.entry.1.key=…     <Attributes><entry><key>…</key><value>…</value></entry></Attributes>
    SQS:  list  AttributeName.1=…            <AttributeName>…</AttributeName>
          map   Attribute.1.Name=…           <Attribute><Name>…</Name><Value>…</Value></Attribute>

The annotations `Flat` and `Entries` on a member's type say what differs from the first two.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Flat(NamedTuple):
    """A list, or a map, without an element of its own around it. `key` and `value` name the halves of a map's entry."""

    element: str
    key: str = "Name"
    value: str = "Value"


class Entries(NamedTuple):
    """A map with an element around it whose entries' halves are not called `key` and `value`."""

    key: str
    value: str


class Shape(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A request, a response, or a part of one. Members that a request has and its shape does not are ignored."""
