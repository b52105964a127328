"""A sidecar beside each pod: what is put into a pod's specification, as a pure function.

``settings``   what is the same for every pod of a cluster
``tuning``     what a pod asks for in its annotations
``quantities`` what of a sidecar's resources is more than another
``shape``      what has the shape of a pod at all
``bypass``     pods that could get around their sidecar, and are refused
``parts``      the sidecar as Kubernetes describes it: container, volumes, environment
``pod``        all of it put into one pod
``documents``  files of YAML with pods in them

The injector's webhook (``services/injector``) and ``mesh inject`` do the same with it. Nothing here knows of
a cluster, and a sidecar imports none of it.
"""
