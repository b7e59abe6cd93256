// What a library of emulated kernels says of them: a table called lvc_kernels, which ends where no name is.
#pragma once

struct Given {
  void *data;
  long long elements;
  int is_written;
};

struct KernelParameter {
  long long elements;
  int is_written, item;  // bytes of an element
};

struct Kernel {
  const char *name;
  int blocks, threads, count;
  const KernelParameter *parameters;
  const char *(*run)(const Given *, long long *);
};
