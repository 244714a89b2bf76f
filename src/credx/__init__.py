"""credx: short-lived, scoped AWS credentials from an ID token and a second factor.

The floors, from the ground up; a room imports only from floors below it (import-linter holds that)::

    errors  strict  urls  aws_limits               the exception tree; strict decoding; the rule for addresses;
                                                   what AWS takes
    model  aws_client                              values that carry trust; what AWS clients are made of
    ui  config  jose  http  protocol  sts          small shared parts
    identity/  factors/  credentials/  broker_client   siblings of the client: who you are; the second
                                                   factor; keep and hand out; the broker's HTTP API
    broker/                                        the server: service is the story, policy is pure
    flow                                           THE client story
    sandbox/                                       the whole world on loopback
    cli/                                           click and rich, only here

A newcomer reads this map, ``flow``, ``broker/service`` and ``broker/policy``.
"""

__version__ = "0.1.0"
