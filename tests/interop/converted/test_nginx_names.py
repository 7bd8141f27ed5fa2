"""nginx that looks into the first message of TLS, beside txmux."""
