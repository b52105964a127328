"""The mesh's own services: ``auth`` (keys and identities) and ``gatekeeper`` (policy and places)."""
