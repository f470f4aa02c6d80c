//! Python classes behind the shim, with the SDK that it embeds.
