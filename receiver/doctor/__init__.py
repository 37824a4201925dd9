"""Floor 5, assembly: `reelhook doctor`: what keeps a receiver from its work, each with its fix.

It changes nothing: no key is made, no database opened, and a port that it tries is let go.
"""

from __future__ import annotations

from collections.abc import Mapping

from receiver.doctor import machine, network, server
from receiver.doctor.findings import Finding, error
from receiver.errors import SettingsRefused
from receiver.settings import Settings
from receiver.store.sqlite.place import mounted


async def examine(environ: Mapping[str, str]) -> list[Finding]:
    """Everything that can be seen from here; nothing hides behind what was found first."""
    try:
        settings = Settings.read(environ)
    except SettingsRefused as refused:
        return [error("settings", str(refused), "Correct it; docs/settings.md has every setting.")]
    facts = await network.ask(settings)
    return [
        *machine.settings_read(settings),
        *machine.keys(settings),
        *machine.data_directory(settings.data_dir),
        *(
            await server.database(settings)
            if settings.on_postgres
            else machine.database(settings, mounted())
        ),
        *machine.port(settings, facts.api),
        *network.receiver(facts),
        *network.clock(facts),
        *network.public_url(settings, facts),
        *network.tunnel(network.public_url_of(settings)),
        *network.proxies(settings, facts),
    ]
