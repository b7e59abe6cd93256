# lvc_add_model(<target> <model.lvc>... [NAME <name>] [COPY])
#
# Embeds artefacts in a target: `#include "lvc_models/model.hpp"` declares `lvc_models::model()`, the bytes of model.lvc,
# which lvc::model::from_memory takes and whose weights are read where they lie in the program. NAME is that of one
# artefact, in place of its file's. With COPY they are copied beside the program instead, whenever they change.
function(lvc_add_model target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "COPY" "NAME" "")
  if(NOT TARGET "${target}")
    message(FATAL_ERROR "lvc_add_model: there is no target '${target}'")
  endif()
  if(NOT arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "lvc_add_model: no artefact is given for '${target}'")
  endif()
  list(LENGTH arg_UNPARSED_ARGUMENTS count)
  if(arg_NAME AND (arg_COPY OR count GREATER 1))
    message(FATAL_ERROR "lvc_add_model: NAME is for one artefact that is embedded")
  endif()
  string(MAKE_C_IDENTIFIER "${arg_NAME}" identifier)
  if(arg_NAME AND NOT arg_NAME STREQUAL identifier)
    message(FATAL_ERROR "lvc_add_model: NAME '${arg_NAME}' is no name in C; '${identifier}' is")
  endif()
  foreach(file IN LISTS arg_UNPARSED_ARGUMENTS)
    get_filename_component(path "${file}" ABSOLUTE)
    if(NOT EXISTS "${path}")
      message(FATAL_ERROR "lvc_add_model: there is no artefact '${path}'; make it with: lvc compile MODEL -o ${path}")
    endif()
    get_filename_component(stem "${path}" NAME_WLE)
    string(MAKE_C_IDENTIFIER "${stem}" name)
    if(arg_NAME)
      set(name "${arg_NAME}")
    endif()
    if(arg_COPY)
      _lvc_copy_model("${target}" "${path}")
    else()
      _lvc_embed_model("${target}" "${path}" "${name}")
    endif()
  endforeach()
endfunction()

function(_lvc_copy_model target path)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${path}")
  add_custom_command(
    TARGET ${target} POST_BUILD
    COMMAND "${CMAKE_COMMAND}" -E copy_if_different "${path}" "$<TARGET_FILE_DIR:${target}>"
    VERBATIM)
endfunction()

function(_lvc_embed_model target path name)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/lvc_models/${target}")
  get_target_property(sources ${target} SOURCES)
  if("${folder}/${name}.cpp" IN_LIST sources)
    message(FATAL_ERROR "lvc_add_model: '${target}' has two artefacts called '${name}': give one another with NAME")
  endif()
  if(path MATCHES "[\\\"]")
    message(FATAL_ERROR "lvc_add_model: a path with a quote or a backslash cannot be embedded: ${path}")
  endif()
  file(CONFIGURE OUTPUT "${folder}/lvc_models/${name}.hpp" @ONLY CONTENT [=[
#ifndef LVC_MODELS_@name@_HPP
#define LVC_MODELS_@name@_HPP

#include <lvc/span.hpp>

namespace lvc_models {

lvc::span<const unsigned char> @name@();

}  // namespace lvc_models
#endif
]=])
  file(CONFIGURE OUTPUT "${folder}/${name}.cpp" @ONLY CONTENT [=[
#include "lvc_models/@name@.hpp"

#ifndef __ELF__
#error "artefacts are embedded in ELF programs: use lvc_add_model(... COPY)"
#endif

__asm__(
    ".pushsection .rodata.lvc_model_@name@, \"a\", %progbits\n"
    ".balign 64\n"
    ".global lvc_model_@name@, lvc_model_@name@_end\n"
    ".hidden lvc_model_@name@, lvc_model_@name@_end\n"
    "lvc_model_@name@:\n"
    ".incbin \"@path@\"\n"
    "lvc_model_@name@_end:\n"
    ".byte 0\n"
    ".popsection\n");

extern "C" const unsigned char lvc_model_@name@[], lvc_model_@name@_end[];

namespace lvc_models {

lvc::span<const unsigned char> @name@() {
  return {lvc_model_@name@, static_cast<std::size_t>(lvc_model_@name@_end - lvc_model_@name@)};
}

}  // namespace lvc_models
]=])
  set_source_files_properties("${folder}/${name}.cpp" PROPERTIES OBJECT_DEPENDS "${path}")
  target_sources(${target} PRIVATE "${folder}/${name}.cpp")
  target_include_directories(${target} PRIVATE "${folder}")
endfunction()
