"""The injector: puts a sidecar beside each pod of the namespaces that ask for it.

``review``       an AdmissionReview in, an AdmissionReview out
``webhook``      the same over HTTPS
``room``         how much of what is asked is held, and for how long
``certificate``  the webhook's certificate: made, judged, renewed
``upkeep``       keeps certificate and join ConfigMaps in the cluster as they have to be
``cluster``      what of the Kubernetes API is used
``main``         the process

What is done to a pod is ``mesh.inject``'s. It has no identity in the mesh and no secret but its TLS key.
"""
