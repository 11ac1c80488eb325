# The environment of the lock, in which both of README's commands run:
#   docker build -t ddpm .
#   docker run --rm ddpm make train        # with GPUs: --gpus all --shm-size 8g
#   docker run --rm ddpm make test
FROM python:3.11-slim-bookworm

# make; a compiler for torch.compile; chromium, in which the tests look at a report's page.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ddpm
ENV PATH=/ddpm/.venv/bin:$PATH

# What takes minutes depends on the lock alone.
COPY requirements.lock ./
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements.lock

COPY . .
RUN make .venv/installed

CMD ["make", "train"]
