"""gatekeeper: who may call whom, who may know of whom, and where they are.

Pure, to be read first:

``directory``      which nodes are there, by instance; their leases
``slices``         what a node may know: its rules, its destinations, their endpoints
``signed``         a policy that auth vouches for, verified

Around them:

``policy_source``  keeps the policy of record coming from auth
``denials``        what nodes denied, on its way to auth's audit log
``decisions``      what nodes decided, kept for operators: ``decision_store``, ``decision_rows``
``watchers``       the open streams: who is due a slice, who a sign of life
``service``        the gRPC service
``__main__``       joins the mesh and serves

It holds no key but its own and gives none out; a node it lies to still needs auth for the pair's key. But for
recorded decisions its state is soft: after a restart the nodes come back by themselves, and until then slices
say so.
"""
