"""Configurations of HAProxy."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "haproxy",
    *(
        "\nlisten x\n",
        "\nfrontend x\n",
        "\nbackend x\n",
        "\ndefaults\n",
        "\nglobal\n",
        "\n bind ",
        "\n acl ",
    ),
    *(
        "\n use_backend ",
        "\n server a ",
        "\n tcp-request content ",
        " if ",
        " { ",
        " } ",
        "%[",
        "]",
    ),
)
