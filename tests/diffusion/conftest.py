from hypothesis import settings

settings.register_profile("ddpm", deadline=None, max_examples=25)
settings.load_profile("ddpm")
