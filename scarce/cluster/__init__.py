"""The Ray cluster under a command: joining or starting it, who may use it, machines that go, workers that stay."""
