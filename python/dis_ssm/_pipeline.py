"""A DiS checkpoint that draws images."""

import json
import os

from . import _native


class Pipeline:
    """A DiS model that draws images, made by :meth:`from_pretrained` and called.

    >>> images = Pipeline.from_pretrained("digits")(num=20, classes=[3, 7], sampler="dpmpp-2m", steps=20)
    >>> images.shape, images.dtype
    ((20, 16, 16, 1), dtype('uint8'))
    """

    def __init__(self, native):
        self._native = native

    @classmethod
    def from_pretrained(cls, path="digits", *, raw=False):
        """Reads a checkpoint: a ``.safetensors`` or ``.pt`` file, or the directory of a run of ``dis train``.

        Of a run it is the newest checkpoint that is whole; a UserWarning names those that are damaged. Of a run or a
        ``.pt`` file the moving average is taken, where there is one; with ``raw`` the weights themselves.
        ``"digits"`` is a small model of handwritten digits in this package.
        """
        name = os.fspath(path)
        return cls(_native.Pipeline(None if name == "digits" else name, bool(raw)))

    @property
    def image_shape(self):
        """(height, width, channels) of an image."""
        channels, height, width = self._native.image_shape
        return (height, width, channels)

    @property
    def num_parameters(self):
        """Number of weights."""
        return self._native.num_parameters

    @property
    def class_names(self):
        """Names of the classes, or None for a model without."""
        return self._native.class_names

    @property
    def metadata(self):
        """What the checkpoint says of itself: a dictionary."""
        return json.loads(self._native.metadata_json)

    def __call__(
        self,
        num=None,
        classes=None,
        sampler=None,
        steps=None,
        cfg_scale=None,
        seed=0,
        callback=None,
        *,
        spacing=None,
        eta=0.0,
        clip=False,
        batch_size=16,
    ):
        """Draws images: uint8, (num, height, width, channels), the same bits as ``dis sample`` with the same choices.

        - ``num``: images, divided evenly over the classes, class by class; 8 of each class (16 without) if it is None
        - ``classes``: numbers or names; all that the model has seen if it is None
        - ``sampler``: ``ddim``, ``ancestral``, ``dpmpp-2m``, ``heun``, ``unipc-2``, ..; ``steps``: its steps; ``spacing``:
          of the steps over time. Without a sampler ``dpmpp-2m``, 20 steps, ``karras``; with one 50 steps, ``default``
        - ``cfg_scale``: guidance; 1 is none, 1.5 is usual for models that can be guided
        - ``seed``: image i depends on (seed, i) alone
        - ``callback(done, total)`` is called after every step; what it raises ends the drawing
        - ``eta``: noise of DDIM; ``clip``: the estimate to [-1, 1] in every step
        - ``batch_size``: images at a time; decides speed and memory, not the images

        Raises ValueError with the name of what does not do.
        """
        chosen = [] if classes is None else [classes] if isinstance(classes, (int, str)) else list(classes)
        names = []
        for name in chosen:
            if isinstance(name, bool) or not (isinstance(name, str) or hasattr(name, "__index__")):
                raise TypeError(f"classes holds a {type(name).__name__}, expected numbers or names")
            names.append(name if isinstance(name, str) else str(name.__index__()))
        return self._native.draw(
            num, names, sampler, steps, spacing, eta, clip, cfg_scale, seed, batch_size, callback
        )
