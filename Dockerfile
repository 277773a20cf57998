# docker build -t t2i_jax .                           CPU
# docker build -t t2i_jax --build-arg EXTRA=cuda .    CUDA 12
FROM python:3.12-slim
ARG EXTRA=eval
WORKDIR /t2i_jax
COPY . .
RUN pip install --no-cache-dir ".[${EXTRA}]"
# runs and prepared data lie in the folder that is mounted here
WORKDIR /work
ENV TFDS_DATA_DIR=/work/data XDG_CACHE_HOME=/work/cache
ENTRYPOINT ["t2i_jax"]
