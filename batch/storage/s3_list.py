"""S3 listings, page by page, in the binary order of their keys whatever the store's own order is."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batch.storage.base import StorageError
from batch.storage.s3_client import storage_errors

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef


def ordered_objects(client: S3Client, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
    """All objects whose whole key begins with `prefix`, in binary key order.

    S3 and most stores list so. SeaweedFS lists folder by folder (`a/b` before `a-b`) and is asked a folder at a time.
    Any other order is a `StorageError`: nobody is to take an unordered listing for an ordered one.
    """
    pages = _pages(client, bucket, prefix)
    first = next(pages)
    if _lists_by_folder(first):
        found = _by_folder(client, bucket, prefix)
    else:
        found = (item for page in itertools.chain([first], pages) for item in page.get("Contents", []))
    last = ""
    for item in found:
        if item["Key"] <= last:
            raise StorageError(f"s3://{bucket}: lists {item['Key']!r} after {last!r}, expected binary key order")
        last = item["Key"]
        yield item


def _pages(client: S3Client, bucket: str, prefix: str, delimiter: str = "") -> Iterator[ListObjectsV2OutputTypeDef]:
    """At least one page; 1,000 keys each."""
    paginator = client.get_paginator("list_objects_v2")
    pages = iter(paginator.paginate(Bucket=bucket, Prefix=prefix, Delimiter=delimiter))
    while True:
        with storage_errors(f"s3://{bucket}/{prefix}"):
            page = next(pages, None)
        if page is None:
            return
        yield page


def _lists_by_folder(page: ListObjectsV2OutputTypeDef) -> bool:
    return page["ResponseMetadata"]["HTTPHeaders"].get("server", "").startswith("SeaweedFS")


def _by_folder(client: S3Client, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
    """Walks the folders of a store that sorts each folder's entries by their bare names.

    `a` as a folder comes before `a-b` there, its keys `a/...` come after it in binary order. So a folder waits until
    a name passes it with the slash put on; only folders wait, never objects.
    """
    waiting: list[str] = []
    for page in _pages(client, bucket, prefix, delimiter="/"):
        entries: dict[str, ObjectTypeDef | None] = {item["Key"]: item for item in page.get("Contents", [])}
        entries.update((folder["Prefix"], None) for folder in page.get("CommonPrefixes", []))
        for key in sorted(entries, key=lambda key: key.rstrip("/")):
            while waiting and waiting[0] < key:
                yield from _by_folder(client, bucket, heapq.heappop(waiting))
            item = entries[key]
            if item is None:
                heapq.heappush(waiting, key)
            else:
                yield item
    while waiting:
        yield from _by_folder(client, bucket, heapq.heappop(waiting))
