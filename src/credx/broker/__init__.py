"""The broker: verifies the ID token and the second factor, decides, records, mints.

Read ``service`` (the story) and ``policy`` (pure decisions) first.

============ =========================================================================================
``front/``   HTTP in, answers out: WSGI, limits at the door, routes, OpenAPI, readiness
``policy/``  the policy file as values, the decision, and what is told of both: review, explain, templates
``audit/``   the hash chains: written with what they record, read, verified
``stores/``  one atomic write over items: SQLite, DynamoDB
============ =========================================================================================

Beside them: ``admission`` (whose ID token), ``person``; ``second_factor`` with ``webauthn``, ``totp``,
``attempts``, ``auth_session``, ``factor_session``; ``enroll``, ``own_factors``, ``invitation``; ``mint``,
``exchange``; ``administration``, ``directory``, ``offboarding`` for administrators.
"""
