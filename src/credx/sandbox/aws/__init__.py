"""A strict AWS on loopback: what STS, SigV4 and IAM would refuse is refused here too; moto keeps the state.

Known differences from the real thing are listed in ``front``; where a rule of AWS is not known or not
built, the answer is a refusal. What STS was seen to do without saying so in its documentation is marked [OBS].
"""
