// A compiled model in C++17: an artefact (model.lvc) from a file or from memory, what it says of itself, and its runs.
//
//   lvc::model model = lvc::model::from_file("r18.lvc");      // throws lvc::error
//   lvc::instance instance(model, 2);                         // two threads; make one for each caller
//   std::vector<float> scores(1000);
//   instance.run({lvc::input(image)}, {lvc::output(scores)});
//
// Each function that can fail takes an lvc::status at the end as well, and then does not throw, but for std::bad_alloc.
// Needs POSIX, the C++ library, dlopen and threads.
#ifndef LVC_HPP
#define LVC_HPP

#include "lvc/classes.hpp"
#include "lvc/model.hpp"
#include "lvc/preprocessing.hpp"
#include "lvc/prepare.hpp"

#endif
