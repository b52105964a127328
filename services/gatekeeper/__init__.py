"""gatekeeper: who may call whom, who may know of whom, and where they are.

Pure, to be read first:

``directory``      which nodes are there, by instance; their leases
``slices``         what a node may know: its rules, its destinations, their endpoints
``signed``         a policy that auth vouches for, verified
``checks``         what an Envoy asks, and verdicts as it takes them

Around them:

``policy_source``  keeps the policy of record coming from auth
``denials``        what nodes denied, on its way to auth's audit log
``decisions``      what nodes decided, kept for operators: ``decision_store``, ``decision_rows``
``watchers``       the open streams: who is due a slice, who a sign of life
``judging``        single calls judged and recorded, for ``service`` and ``ext_authz``
``service``        the gRPC service
``ext_authz``      the same verdicts for proxies that ask as Envoy does, on a port of their own
``__main__``       joins the mesh and serves

It holds no key but its own and gives none out; a node it lies to still needs auth for the pair's key. But for
recorded decisions its state is soft: after a restart the nodes come back by themselves, and until then slices
say so.
"""
