;; follow@1: a harness in WebAssembly text. It runs what the model asks for, tries a failed request again at the end of
;; the minute, five times, and ends the turn when the model asks for nothing.
;;
;; It does not parse JSON: it looks for what the host is bound to write. A quote inside a string is escaped, so none of
;; the needles below can occur in what a model or a tool said.
;;
;;   wat2wasm --enable-annotations follow.wat   (or: wasm-tools parse follow.wat -o follow.wasm)
;;   steadyhand harness add follow.wasm
(module
  (@custom "steadyhand" "{\"abi\":1,\"name\":\"follow\",\"version\":1,\"view\":1}")

  ;; Page 0: texts. Pages 1 and 2: the answer, which is never longer than the View. The host adds pages for the View.
  (memory (export "memory") 3)
  (global $out (mut i32) (i32.const 65536))

  ;; Needles.
  (data (i32.const 0) "\"calls\":[{")                ;; 10
  (data (i32.const 32) "\"results\":[")              ;; 11
  (data (i32.const 64) "\"tool_use_id\":\"")         ;; 15
  (data (i32.const 96) "\"last\":{\"last\":\"failed\"") ;; 23
  (data (i32.const 128) "\"last\":{\"last\":\"answer\"") ;; 23
  (data (i32.const 160) "\"results\":[]")            ;; 12
  (data (i32.const 192) "\"retry\":\"permanent\"")   ;; 19
  (data (i32.const 224) "\"tries\":")                ;; 8
  (data (i32.const 256) "\"now\":\"")                ;; 7

  ;; What is written.
  (data (i32.const 512) "{\"step\":{\"step\":\"execute\",\"calls\":[")     ;; 35
  (data (i32.const 576) "]}}")                                              ;; 3
  (data (i32.const 608) "{\"step\":{\"step\":\"call_model\"}}")            ;; 30
  (data (i32.const 672) "{\"step\":{\"step\":\"idle\",\"reason\":{\"reason\":\"end_turn\"}}}") ;; 55
  (data (i32.const 768) "{\"step\":{\"step\":\"idle\",\"reason\":{\"reason\":\"retries_exhausted\"}},\"errors\":[{\"type\":\"model_request_failed_error\",\"message\":\"the model could not be asked\",\"retry_status\":{\"type\":\"exhausted\"}}]}") ;; 190
  (data (i32.const 1024) "{\"step\":{\"step\":\"wait\",\"until\":\"")     ;; 32
  (data (i32.const 1088) "59.999Z\"},\"errors\":[{\"type\":\"model_request_failed_error\",\"message\":\"the model request failed\",\"retry_status\":{\"type\":\"retrying\"}}]}") ;; 131

  ;; Where `needle` begins in the text from `at` to `end`, or -1.
  (func $find (param $at i32) (param $end i32) (param $needle i32) (param $len i32) (result i32)
    (local $i i32)
    (block $none
      (loop $next_place
        (br_if $none (i32.gt_u (i32.add (local.get $at) (local.get $len)) (local.get $end)))
        (local.set $i (i32.const 0))
        (block $differs
          (loop $same
            (br_if $differs
              (i32.ne
                (i32.load8_u (i32.add (local.get $at) (local.get $i)))
                (i32.load8_u (i32.add (local.get $needle) (local.get $i)))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $same (i32.lt_u (local.get $i) (local.get $len)))
            (return (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next_place)))
    (i32.const -1))

  (func $emit (param $from i32) (param $len i32)
    (memory.copy (global.get $out) (local.get $from) (local.get $len))
    (global.set $out (i32.add (global.get $out) (local.get $len))))

  (func $emit_byte (param $byte i32)
    (i32.store8 (global.get $out) (local.get $byte))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  ;; What was emitted, as the host wants it.
  (func $answer (result i64)
    (i64.or
      (i64.shl (i64.const 65536) (i64.const 32))
      (i64.extend_i32_u (i32.sub (global.get $out) (i32.const 65536)))))

  ;; Every call's id between `calls` and `end`, quoted, with commas.
  (func $execute (param $calls i32) (param $end i32) (result i64)
    (local $id i32)
    (call $emit (i32.const 512) (i32.const 35))
    (block $done
      (loop $next_call
        (local.set $calls (call $find (local.get $calls) (local.get $end) (i32.const 64) (i32.const 15)))
        (br_if $done (i32.eq (local.get $calls) (i32.const -1)))
        (if (i32.ne (i32.load8_u (i32.sub (global.get $out) (i32.const 1))) (i32.const 91)) ;; [
          (then (call $emit_byte (i32.const 44)))) ;; ,
        (call $emit_byte (i32.const 34)) ;; "
        (local.set $id (i32.add (local.get $calls) (i32.const 15)))
        (loop $copy
          (call $emit_byte (i32.load8_u (local.get $id)))
          (local.set $id (i32.add (local.get $id) (i32.const 1)))
          (br_if $copy (i32.ne (i32.load8_u (local.get $id)) (i32.const 34))))
        (call $emit_byte (i32.const 34))
        (local.set $calls (local.get $id))
        (br $next_call)))
    (call $emit (i32.const 576) (i32.const 3))
    (call $answer))

  ;; Permanent, or the fifth time: two digits or a digit above 4.
  (func $is_over (param $view i32) (param $end i32) (result i32)
    (local $tries i32)
    (if (i32.ne (call $find (local.get $view) (local.get $end) (i32.const 192) (i32.const 19)) (i32.const -1))
      (then (return (i32.const 1))))
    (local.set $tries (call $find (local.get $view) (local.get $end) (i32.const 224) (i32.const 8)))
    (local.set $tries (i32.add (local.get $tries) (i32.const 8)))
    (i32.or
      (i32.ge_u (i32.load8_u (local.get $tries)) (i32.const 53))
      (i32.ne (i32.load8_u (i32.add (local.get $tries) (i32.const 1))) (i32.const 125)))) ;; }

  (func $failed (param $view i32) (param $end i32) (result i64)
    (local $now i32)
    (if (call $is_over (local.get $view) (local.get $end))
      (then
        (call $emit (i32.const 768) (i32.const 190))
        (return (call $answer))))
    (local.set $now (call $find (local.get $view) (local.get $end) (i32.const 256) (i32.const 7)))
    (call $emit (i32.const 1024) (i32.const 32))
    ;; 2026-01-01T00:00: and the last second of that minute.
    (call $emit (i32.add (local.get $now) (i32.const 7)) (i32.const 17))
    (call $emit (i32.const 1088) (i32.const 131))
    (call $answer))

  (func (export "next") (param $view i32) (param $len i32) (result i64)
    (local $end i32)
    (local $calls i32)
    (local $results i32)
    (local.set $end (i32.add (local.get $view) (local.get $len)))
    (local.set $calls (call $find (local.get $view) (local.get $end) (i32.const 0) (i32.const 10)))
    (local.set $results (call $find (local.get $view) (local.get $end) (i32.const 32) (i32.const 11)))
    (if (i32.ne (local.get $calls) (i32.const -1))
      (then (return (call $execute (local.get $calls) (local.get $results)))))
    (if (i32.ne (call $find (local.get $view) (local.get $end) (i32.const 96) (i32.const 23)) (i32.const -1))
      (then (return (call $failed (local.get $view) (local.get $end)))))
    (if (i32.and
          (i32.ne (call $find (local.get $view) (local.get $end) (i32.const 128) (i32.const 23)) (i32.const -1))
          (i32.ne (call $find (local.get $view) (local.get $end) (i32.const 160) (i32.const 12)) (i32.const -1)))
      (then
        (call $emit (i32.const 672) (i32.const 55))
        (return (call $answer))))
    (call $emit (i32.const 608) (i32.const 30))
    (call $answer)))
