"""Settings of the property tests."""

import hypothesis

# The default deadline is a wall-clock assertion, which a busy machine breaks.
hypothesis.settings.register_profile("mooring", deadline=None)
hypothesis.settings.load_profile("mooring")
