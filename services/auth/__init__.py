"""auth: keys and identities, nothing else. It never sees application traffic.

Pure, to be read first:

``tokens``      the life of a join token, and what a proven request for one gets
``epochs``      when keys are made, handed out and forgotten
``ca``          the certificate authority: reads requests, issues X.509-SVIDs; ``succession`` when which

State:

``vault``       secrets sealed at rest under the key-encryption key (KEK)
``kek``         the KEK on the disk; ``kms`` who may keep it instead; ``rekey`` another in its place
``records``     rows as values; ``schema`` as tables; ``migrations`` how they came to be
``database``    a SQLite file, opened or refused
``store``       what is in it: one method, one transaction; ``rows`` to and from values
``key_store``   what is in it of the mesh's own keys
``log_store``   transactions that write to the audit logs; ``audit_log`` the logs, ``segments`` their files
``deferred``    entries that are bounded, or wait until a log can be written
``durable``     files through to the disk
``directory``   the data directory: made at once or not at all, opened by one process or not at all
``archive``     the file of a backup; ``backup`` how it is taken, ``restoring`` what comes of it
``founding``    a new one, all of it or nothing; ``replicating`` another auth's, ``sharing`` whichever
``clock``       a time that never runs backwards

Around them:

``roots``       the epochs in force, with their secrets opened; ``authorities`` the CAs in force
``policies``    the policy of record, signed
``admission``   tokens and joins
``authority``   all of it together: what the services below ask, in domain terms; ``messages`` for its answers
``credential``  the operator's own, kept good; ``keeping`` what operators ask of the keys
``auditor``     what else goes to the audit logs: ``reports`` of nodes, refusals; ``audit`` tells stderr

Edges:

``worker``      the one thread for all that waits for the disk
``join_service`` ``auth_service`` ``operator_service`` ``audit_service`` ``key_service``
                gRPC in, ``authority`` asked, ``status`` out
``policy_feed`` who watches the policy
``server``      two ports, auth's own membership, the timer
``main``        the process
"""
