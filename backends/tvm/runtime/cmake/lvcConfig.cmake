# find_package(lvc): the target lvc::runtime and the function lvc_add_model, for programs that run compiled models.
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)

if(NOT TARGET lvc::runtime)
  add_library(lvc::runtime INTERFACE IMPORTED)
  get_filename_component(_lvc_include "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
  target_include_directories(lvc::runtime INTERFACE "${_lvc_include}")
  target_compile_features(lvc::runtime INTERFACE cxx_std_17)
  target_link_libraries(lvc::runtime INTERFACE Threads::Threads ${CMAKE_DL_LIBS})
endif()

include("${CMAKE_CURRENT_LIST_DIR}/lvcAddModel.cmake")
