"""The embedded benchmark of emoji in many drawing styles, and EmojiCLIP, the tiny CLIP that goes with it."""
