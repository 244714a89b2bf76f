"""Who you are: OpenID Connect sign-in, or a token that is already there."""
