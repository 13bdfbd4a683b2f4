"""The schema registry: a fold over the compacted topic `_schemas`, its REST API, and a client."""
