"""Tests of the edge: sealed calls over real sockets between memberships made without auth."""
