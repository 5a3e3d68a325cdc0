"""How datasets are made and looked at: SAC online, inspection, bundled policies."""
