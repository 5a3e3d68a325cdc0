"""How datasets are collected and inspected: SAC online, facts about a dataset, evaluation of the bundled policies."""
