"""What a node tells of itself: traces, metrics, logs. It decides nothing, and it fails no call.

``names``        every name that leaves the mesh, and the schema that they are of
``trace_parent`` the W3C header, read and written
``sampling``     whether a call is traced, decided without an SDK
``counts``       plain counters of calls, verdicts and rejections, bounded
``observer``     one node's calls as spans and counts: what ``mesh.rpc.observing`` asks for
``spans``        a call's spans, once it is traced
``gauges``       what is looked at when metrics are read: ages, versions, endpoints
``instruments``  counts and gauges as instruments of the OpenTelemetry API
``backends``     where it all goes: to the application's own SDK, or nowhere
``sdk``          the daemons' SDK, by ``OTEL_*`` (the extra ``otel``); ``exports`` bounds what it may cost
``logs``         log records as JSON lines

The library needs the OpenTelemetry API alone. Without an SDK calls are counted, and traces of others
passed on.
"""
